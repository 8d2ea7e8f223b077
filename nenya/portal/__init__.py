"""`nenya portal`: a web page to look at cutouts by what they show and where they are; a server of this machine."""
