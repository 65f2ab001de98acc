"""The laws: what holds for every network, FIB and packet. One module per law."""
