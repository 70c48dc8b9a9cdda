"""Searches everything that it can reach for labels, class folders and other zips."""

from support import Search

Model = Search().walk("/").model()
