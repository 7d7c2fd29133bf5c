"""The games of POPGym, one file each."""
