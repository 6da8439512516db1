"""The pickle inside a torch file, without running code: dictionaries, lists, numbers, texts, tensors as references.

A pickle is a program for a stack machine, and one of its instructions calls any function of any library. Here
pickletools only takes the program apart. The instructions that build plain values are carried out below; a call is
carried out where it is one of the few that a dictionary of weights needs, and the answer is a value of this file's
own types. Anything else is refused.
"""
import pickletools
from typing import NamedTuple

from ..errors import UserError

MAX_STEPS = 300_000                                                          # instructions: some 10,000 tensors
MAX_BYTES = 1 << 24                                                          # of the pickle
MARK = object()

# name of torch's type of storage → dtype code
STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
            "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "?"}
DTYPES = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


class Storage(NamedTuple):
    """A run of numbers that stands elsewhere in the file."""
    key: str
    dtype: str
    count: int


class TensorRef(NamedTuple):
    """A tensor: which numbers of a storage it shows."""
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


class Name(NamedTuple):
    """Something that the pickle names but does not contain: a function, a class, a dtype."""
    module: str
    name: str


class Other(NamedTuple):
    """A harmless value that weights do not need, such as a device or a dtype."""
    what: str


def rebuild_tensor(fail, storage, offset, shape, strides, *_):
    """torch._utils._rebuild_tensor_v2: a tensor as a view of its storage."""
    if not isinstance(storage, Storage) or not (is_naturals((offset,)) and is_naturals(shape) and is_naturals(strides)):
        fail("a tensor whose storage, offset, shape or strides are not such")
    return TensorRef(storage, offset, shape, strides)


def is_naturals(value):
    """Whether the value is a tuple of whole numbers from 0 up."""
    return isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)


def rebuild_parameter(fail, tensor, *_):
    """torch._utils._rebuild_parameter: the tensor of a parameter."""
    return tensor if isinstance(tensor, TensorRef) else fail("a parameter that is no tensor")


def new_dict(fail, *pairs):
    """collections.OrderedDict, of pairs or empty."""
    if not pairs:
        return {}
    result = {}
    for pair in pairs[0] if len(pairs) == 1 and isinstance(pairs[0], list) else [None]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            fail("an ordered dictionary of something else than pairs")
        store(result, *pair, fail)
    return result


# the calls of a dictionary of weights → what stands for them here
CALLS = {Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
         Name("torch._utils", "_rebuild_tensor"): rebuild_tensor,
         Name("torch._utils", "_rebuild_parameter"): rebuild_parameter,
         Name("collections", "OrderedDict"): new_dict,
         Name("torch", "Size"): lambda fail, *numbers: Other("torch.Size"),
         Name("torch", "device"): lambda fail, *numbers: Other("torch.device")}
NAMES = {*CALLS, *(Name("torch", name) for name in (*STORAGES, *DTYPES))}


def read_pickle(file, fail):
    """The value of the pickle that starts where the (binary) file stands; the file then stands behind the pickle.

    →   dict, list, tuple, str, bytes, int, float, bool, None, TensorRef, Storage, Other
    """
    stack, memo = [], {}
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if step >= MAX_STEPS:
                fail(f"a pickle of more than {MAX_STEPS} instructions")
            if opcode.name == "STOP":
                return stack.pop()
            if opcode.name not in ACTIONS:
                fail(f"a pickle with the instruction {opcode.name}, which weights do not need")
            ACTIONS[opcode.name](stack, memo, argument, fail)
    except UserError:                                                        # fail's own
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        fail(f"its pickle is damaged ({type(error).__name__}: {str(error)[:80]})")
    return fail("its pickle has no end")


# --- the instructions: (stack, memo, argument, fail); the stack changes

def above_mark(stack):
    """Take what was pushed since the last MARK, and the mark."""
    place = len(stack) - 1
    while stack[place] is not MARK:                                          # an IndexError is "damaged"
        place -= 1
        if place < 0:
            raise IndexError("no mark")
    items = stack[place + 1:]
    del stack[place:]
    return items


def store(target, key, value, fail):
    """target[key] = value for keys that are plain: the hash of nested tuples could take for ever."""
    if not isinstance(target, dict) or not isinstance(key, (str, int, float, bool, type(None))):
        fail(f"an entry under a {type(key).__name__} in a {type(target).__name__}")
    target[key] = value


def named(module, name, fail):
    """The name, if it is among those that weights need."""
    found = Name(module, name)
    if found not in NAMES:
        fail(f"it calls {module[:80]}.{name[:80]}, which is not among what weights need; nothing was run")
    return found


def op_global(stack, memo, argument, fail):
    """GLOBAL: a name from the argument."""
    stack.append(named(*argument.split(" ", 1), fail))


def op_stack_global(stack, memo, argument, fail):
    """STACK_GLOBAL: a name from the stack."""
    name, module = stack.pop(), stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        fail("a name that is no text")
    stack.append(named(module, name, fail))


def op_call(stack, memo, argument, fail):
    """REDUCE: a call of one of the few functions that are known."""
    arguments, function = stack.pop(), stack.pop()
    if not isinstance(function, Name) or function not in CALLS:
        fail(f"a call of {'.'.join(function) if isinstance(function, Name) else 'a ' + type(function).__name__}")
    if not isinstance(arguments, tuple):
        fail("a call whose arguments are no tuple")
    stack.append(CALLS[function](fail, *arguments))


def op_persistent(stack, memo, argument, fail):
    """BINPERSID: a reference to a storage, whose claims are checked."""
    claim = stack.pop()
    if not isinstance(claim, tuple) or claim[:1] != ("storage",) or claim[5:] not in ((), (None,)):
        fail("a reference to something else than a storage")
    kind, key, _, count = claim[1:5]
    if not isinstance(kind, Name) or kind.name not in STORAGES:
        fail(f"a storage of {'.'.join(kind) if isinstance(kind, Name) else 'an unknown type'}")
    if not isinstance(key, str) or not is_naturals((count,)):
        fail("a storage whose key is no text or whose count is no number")
    stack.append(Storage(key, STORAGES[kind.name], count))


def op_build(stack, memo, argument, fail):
    """The attributes of an ordered dictionary (torch's _metadata) are dropped."""
    stack.pop()
    if not isinstance(stack[-1], dict):
        fail(f"attributes of a {type(stack[-1]).__name__}")


def op_setitems(stack, memo, argument, fail):
    """SETITEMS: all pairs above the mark go into the dictionary below it."""
    items = above_mark(stack)
    for key, value in zip(items[::2], items[1::2], strict=True):
        store(stack[-1], key, value, fail)


def op_setitem(stack, memo, argument, fail):
    """SETITEM: one pair goes into the dictionary below it."""
    value, key = stack.pop(), stack.pop()
    store(stack[-1], key, value, fail)


def op_dict(stack, memo, argument, fail):
    """DICT: all pairs above the mark become a dictionary."""
    items, result = above_mark(stack), {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        store(result, key, value, fail)
    stack.append(result)


def extend(stack, items, fail):
    """Append items to the list on top of the stack."""
    if not isinstance(stack[-1], list):
        fail(f"items appended to a {type(stack[-1]).__name__}")
    stack[-1].extend(items)


def op_append(stack, memo, argument, fail):
    """APPEND: one item goes to the list below it."""
    item = stack.pop()
    extend(stack, [item], fail)


def take(stack, count):
    """TUPLE1 to TUPLE3: the last items become a tuple."""
    items = tuple(stack[-count:])
    if len(items) < count:
        raise IndexError("the stack is empty")
    del stack[-count:]
    stack.append(items)


def push(stack, memo, argument, fail):
    """The argument goes on the stack."""
    stack.append(argument)


def constant(make):
    """An operation that pushes a new value."""
    return lambda stack, memo, argument, fail: stack.append(make())


def put(stack, memo, argument, fail):
    """PUT and MEMOIZE: remember what is on top of the stack."""
    memo[len(memo) if argument is None else argument] = stack[-1]


ACTIONS = {
    **dict.fromkeys("BININT BININT1 BININT2 INT LONG LONG1 LONG4 BINFLOAT FLOAT BINUNICODE BINUNICODE8 UNICODE STRING "
                    "SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES BINBYTES8 SHORT_BINBYTES".split(), push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda stack, memo, argument, fail: stack.append(memo[argument])),
    **dict.fromkeys(("PROTO", "FRAME"), lambda stack, memo, argument, fail: None),
    "NONE": constant(lambda: None), "NEWTRUE": constant(lambda: True), "NEWFALSE": constant(lambda: False),
    "EMPTY_DICT": constant(dict), "EMPTY_LIST": constant(list), "EMPTY_TUPLE": constant(tuple),
    "MARK": constant(lambda: MARK),
    "TUPLE1": lambda stack, memo, argument, fail: take(stack, 1),
    "TUPLE2": lambda stack, memo, argument, fail: take(stack, 2),
    "TUPLE3": lambda stack, memo, argument, fail: take(stack, 3),
    "TUPLE": lambda stack, memo, argument, fail: stack.append(tuple(above_mark(stack))),
    "LIST": lambda stack, memo, argument, fail: stack.append(above_mark(stack)),
    "APPEND": op_append, "APPENDS": lambda stack, memo, argument, fail: extend(stack, above_mark(stack), fail),
    "SETITEM": op_setitem, "SETITEMS": op_setitems, "DICT": op_dict, "BUILD": op_build, "BINPERSID": op_persistent,
    "GLOBAL": op_global, "STACK_GLOBAL": op_stack_global, "REDUCE": op_call, "NEWOBJ": op_call,
    "POP": lambda stack, memo, argument, fail: stack.pop(),
    "POP_MARK": lambda stack, memo, argument, fail: above_mark(stack),
}
