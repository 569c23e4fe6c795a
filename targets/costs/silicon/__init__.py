"""Records of measured chips, one TOML file each: figures with their source, and what the tables predict."""
