"""Everything that talks to the state server: keys, scripts, runs, the directory."""
