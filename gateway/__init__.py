"""Edge gateway for fleets of home batteries."""
