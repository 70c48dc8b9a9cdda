"""Walks everything that can be reached for labels, class folders and other zips."""

from support import Search

Model = Search().walk("/").model()
