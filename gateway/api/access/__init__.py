"""Who asks: tokens, certificates and signed statements (JWT), as a file names them."""
