"""Pixels → backbone → features → head."""
