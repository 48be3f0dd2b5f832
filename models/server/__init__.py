"""The demo page and the HTTP interface."""
