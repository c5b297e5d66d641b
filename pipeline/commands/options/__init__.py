"""Options that several commands share, each with what it stands for.

Imports nothing heavy before an option is used. A module for projects, recipes, servers, releases and clusters each;
`refused` is for options in vain.
"""
