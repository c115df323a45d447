"""One small file for a ticket: places and shared values of its weights, arithmetic coded.

`ticket.py` writes and loads them, `decode.py` reads them with NumPy alone.
"""
