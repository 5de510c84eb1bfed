"""The configuration: settings (what can be set), load (where it comes from), watch (reload)."""
