"""Rules of grid programs as values: calendars, permissions, counts and rates. Nothing here reads a program's file."""
