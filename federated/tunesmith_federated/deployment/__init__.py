"""Real sites: certificates, the server behind its front door, the site that answers, and its owner's word."""
