"""What a protobuf message will cost, told from its bytes before it is parsed.

Two bytes on the wire can become a message of a hundred in memory, and the parser holds the interpreter's lock from
its first byte to its last. Walking over the fields costs little, can be interrupted, and finds it out.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from mnist_tfx.serving.client.tensors import read_varint
from mnist_tfx.serving.server.errors import TooLargeError
from mnist_tfx.serving.server.limits import MAX_PARTS

_MAX_DEPTH = 100  # the parser's own
_PACKED_BYTES_OF_A_PART = 32
_FIXED = (
    FieldDescriptor.TYPE_FLOAT,
    FieldDescriptor.TYPE_DOUBLE,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
)


def check_weight(data: bytes, message: Any) -> None:
    """Raises TooLargeError for more than `MAX_PARTS` fields in the bytes of a message, given by its descriptor.

    What is malformed, the parser will tell.
    """
    if _room_left(data, 0, len(data), message, MAX_PARTS, _MAX_DEPTH) < 0:
        raise TooLargeError(
            f"the {message.full_name} holds more than {MAX_PARTS} messages and strings; send numbers as "
            "tensor_content, and many examples in several requests",
        )


def _room_left(data: bytes, at: int, end: int, message: Any, room: int, depth: int) -> int:
    fields = message.fields_by_number
    try:
        while at < end and room >= 0 and depth:
            room -= 1
            tag, at = read_varint(data, at)
            wire_type = tag & 7
            if wire_type == 0:
                _, at = read_varint(data, at)
            elif wire_type == 1:
                at += 8
            elif wire_type == 5:
                at += 4
            elif wire_type == 2:
                size, at = read_varint(data, at)
                field = fields.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    room = _room_left(data, at, min(at + size, end), field.message_type, room, depth - 1)
                elif field is not None and field.type not in _FIXED:
                    room -= size // _PACKED_BYTES_OF_A_PART
                at += size
    except IndexError:
        pass  # cut off
    return room
