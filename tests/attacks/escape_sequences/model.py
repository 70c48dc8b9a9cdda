"""Prints and raises what would clear a terminal and draw another verdict."""

FORGED = "\x1b[2J\x1b[H\rverdict   the server would accept it\x07"
print(FORGED)
raise RuntimeError(FORGED + "\udc80\u202e")
