"""Which sums of an emitted module a compiler could contract to an fma: read from its syntax.

A float product must not reach an addition, a subtraction or a reduction, wherever it was computed.
What is not known to be an integer counts as a float, and what may be a product counts as one.
"""

from __future__ import annotations

import ast
import re

INTEGER_CALLS = {"tl.program_id", "tl.num_programs", "tl.arange"}
REDUCTIONS = {"tl.sum", "tl.cumsum"}
PASSES_ON = REDUCTIONS | {"tl.where", "tl.minimum", "tl.maximum", "tl.abs", "tl.max"}
PASSES_ON |= {"tl.trans", "tl.broadcast_to", "tl.expand_dims", "tl.reshape", "tl.permute"}
PASSES_ON |= {"tl.split", "tl.gather"}


def contractible(tree: ast.Module, text: str) -> list[str]:
    """The sums of all functions of a module that a float product reaches unrounded."""
    constants = re.findall(r"^(\w+) = tl\.constexpr\((?:-?\d+|0x\w+)\)", text, re.MULTILINE)
    integer_pointers = re.findall(r"^ +(\w+_ptr),  # int", text, re.MULTILINE)
    found: list[str] = []
    rounded: set[str] = set()  # helpers that return no product, above the functions that call them
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            function = _Function(node, {*constants, *integer_pointers}, rounded)
            found += function.contractible()
            if not function.returns_a_product():
                rounded.add(node.name)
    return found


class _Function:
    """The names of one function, by what they may hold."""

    def __init__(self, function: ast.FunctionDef, integers: set[str], rounded: set[str]) -> None:
        self.nodes = list(ast.walk(function))
        self.rounded = rounded
        self.assigned: dict[str, list[ast.expr]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                for target, value in _pairs(node):
                    self.assigned.setdefault(_name(target), []).append(value)
            if isinstance(node, ast.AugAssign):
                self.assigned.setdefault(_name(node.target), []).append(_operation(node))

        arguments = {each.arg for each in function.args.args}
        helper = function.name.startswith("_")
        counts = {each for each in arguments if not each.endswith("_ptr") and not helper}
        turns = {_name(node.target) for node in self.nodes if isinstance(node, ast.For)}
        self.integers = integers | counts | turns | self.assigned.keys()
        self.products = arguments if helper else set()
        while floats := {name for name in self.assigned if self._turns_out_float(name)}:
            self.integers -= floats
        while more := {name for name in self.assigned if self._turns_out_product(name)}:
            self.products |= more

    def contractible(self) -> list[str]:
        found = []
        for node in self.nodes:
            if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(
                node.op, (ast.Add, ast.Sub)
            ):
                operation = _operation(node)
                terms = [operation.left, operation.right]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in REDUCTIONS:
                operation, terms = node, node.args
            else:
                continue
            if any(self._is_product(each) for each in terms):
                found.append(ast.unparse(operation))
        return found

    def returns_a_product(self) -> bool:
        returned = [node.value for node in self.nodes if isinstance(node, ast.Return)]
        return any(self._is_product(each) for each in returned if each is not None)

    def _turns_out_float(self, name: str) -> bool:
        values = self.assigned[name]
        return name in self.integers and not all(self._is_integer(each) for each in values)

    def _turns_out_product(self, name: str) -> bool:
        values = self.assigned[name]
        return name not in self.products and any(self._is_product(each) for each in values)

    def _is_integer(self, node: ast.expr) -> bool:
        match node:
            case ast.Constant(value=value):
                return isinstance(value, int)
            case ast.Name(id=name):
                return name in self.integers
            case ast.Compare():
                return True
            case ast.BinOp(op=op, left=left, right=right):
                whole = not isinstance(op, ast.Div)
                return whole and self._is_integer(left) and self._is_integer(right)
            case ast.UnaryOp(operand=inner) | ast.Subscript(value=inner):
                return self._is_integer(inner)
            case ast.Call(func=ast.Attribute(attr="to"), args=[to]):
                return ast.unparse(to).startswith("tl.int")
            case ast.Call(func=function, args=[first, *rest], keywords=keywords):
                called = ast.unparse(function)
                if called == "tl.load":  # of pointer arithmetic the first name is the pointer
                    return re.match(r"\w+", ast.unparse(first))[0] in self.integers
                if called in PASSES_ON:
                    values = rest if called == "tl.where" else [first, *rest]
                    return all(self._is_integer(each) for each in values)
                types = {ast.unparse(each.value) for each in keywords if "dtype" in str(each.arg)}
                return called in INTEGER_CALLS or types == {"tl.int32"}
        return False

    def _is_product(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self.products
            case ast.BinOp(op=ast.Mult()):
                return not self._is_integer(node)
            case ast.UnaryOp(operand=inner) | ast.Subscript(value=inner):
                return self._is_product(inner)
            case ast.Call(func=ast.Attribute(attr="to", value=inner), args=[to]):
                # A conversion to a shorter type rounds; one to fp32 may change nothing.
                return ast.unparse(to) == "tl.float32" and self._is_product(inner)
            case ast.Call(func=function, args=arguments):
                called = ast.unparse(function)
                values = arguments[1:] if called == "tl.where" else arguments
                passed = called in PASSES_ON and any(self._is_product(each) for each in values)
                return passed or (called.startswith("_") and called not in self.rounded)
        return False


def _pairs(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    """Each name that is assigned, with its value; all of several with that of one call."""
    [target] = node.targets
    if not isinstance(target, ast.Tuple):
        return [(target, node.value)]
    values = node.value.elts if isinstance(node.value, ast.Tuple) else None
    return list(zip(target.elts, values or [node.value] * len(target.elts), strict=True))


def _name(target: ast.expr) -> str:
    assert isinstance(target, ast.Name), f"assignment to {ast.unparse(target)}"
    return target.id


def _operation(node: ast.BinOp | ast.AugAssign) -> ast.BinOp:
    """`a += b` as `a + b`."""
    if isinstance(node, ast.BinOp):
        return node
    return ast.BinOp(ast.Name(_name(node.target), ast.Load()), node.op, node.value)
