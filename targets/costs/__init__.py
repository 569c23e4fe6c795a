"""Cost tables: energies per operation, one TOML file each, with their sources."""
