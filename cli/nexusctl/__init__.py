"""The command line of Nexus: it composes the three services for the person or script at hand."""
