"""Programs compared with their networks and with other devices."""
