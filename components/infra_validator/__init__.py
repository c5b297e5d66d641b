"""InfraValidator: loads the candidate in the server that will serve it, and compares its answers, times and memory.

Imports the client of `serving` and `components.transform.preprocessing`, and starts a server as a process. Start with
`executor`; `checks` are what is judged.
"""
