"""The paper's open question: how to search the flow table (docs/search-methods.md).

`tables` are the candidates, `fibs` makes tables and traffic, `cascade` walks them as the paper's flowchart does.
"""
