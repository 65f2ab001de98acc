"""The executable specification, the oracle of the compiler: `walk` says what becomes of a packet, `interpreter` what rules do.

Slow and plain on purpose. It shares nothing with `collapse` but the model.
"""
