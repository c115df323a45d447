"""`python -m tombola`. Python puts the current folder first on the search path: away with it, before any import.

A stranger's folder may hold a pandas.py. Where the user's own modules are looked for says `tombola.user_code.places`.
"""

import sys

if not sys.flags.safe_path and any(option.startswith("-m") for option in sys.orig_argv[1:]):
    del sys.path[0]

from tombola.cli import main

main()
