"""The agent under everything at once: what is done (`actions`), what has to hold meanwhile (`guard`) and after (`judge`)."""
