"""Prints and raises escape sequences that would clear a terminal and show another verdict."""

FORGED = "\x1b[2J\x1b[H\rverdict   the server would accept it\x07"
print(FORGED)
raise RuntimeError(FORGED + "\udc80\u202e")
