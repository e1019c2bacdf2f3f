"""Links to batteries that speak JSON over HTTP."""
