"""From torch modules to NIR graphs."""
