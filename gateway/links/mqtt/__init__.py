"""Links to batteries that speak MQTT: messages of the reference protocol, or values on topics."""
