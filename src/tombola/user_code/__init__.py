"""What a user's function is made of: the part of their project that it can reach, found without running anything.

- `modules` finds a module's source and tells a user's modules from libraries;
- `statements` takes a source apart into top-level statements: what each binds, uses and does;
- `closure` follows the uses from one function through all modules of the project;
- `imported` tells whether the files are still as they were imported;
- `callables` does the same for a function at hand, with the values that it uses. `loads` and `texts` help it.
"""

from tombola.user_code.closure import Closure, closure_of
from tombola.user_code.modules import is_library

__all__ = ["Closure", "closure_of", "is_library"]
