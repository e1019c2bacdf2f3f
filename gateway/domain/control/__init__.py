"""From what events want to what is written to each device."""
