"""Every interval record, in one total order, read by cursors."""
