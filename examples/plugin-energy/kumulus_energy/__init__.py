"""A Kumulus plugin: keeps the power that VMs draw within a budget."""
