"""What scripts and notebooks call as `peftmark.<name>`, and the command line calls too."""
