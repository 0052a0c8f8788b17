"""What controllers and agents both need: certificates, logs, an HTTP server with probes."""
