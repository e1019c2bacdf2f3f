"""MQTT 5 on the `mqtt5` codec: `session` is sans-I/O, `connection` puts it on asyncio."""
