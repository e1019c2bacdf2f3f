"""Links to batteries that speak Modbus TCP."""
