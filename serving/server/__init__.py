"""A model server for machines without TF Serving; it answers as TF Serving does.

Imports `contract`, and the client's tensors, messages, pixels, errors and request log. Start with `main`; a request's
way is `unary` or `rest`, `calls`, `servable`, `batching`, `engine`; a version's is `versions`, `lifecycle`, `loader`,
`manager`.
"""
