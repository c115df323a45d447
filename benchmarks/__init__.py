"""How fast tombola is against a plain PyTorch loop, on this machine."""
