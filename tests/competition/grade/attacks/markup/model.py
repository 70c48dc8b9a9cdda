"""Raises markup that would run in the detailed results."""

raise RuntimeError("</td></table><script>alert(1)</script><img src=x onerror=alert(1)>")
