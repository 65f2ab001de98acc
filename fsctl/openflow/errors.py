"""OpenFlow errors by name (OpenFlow 1.4.1, section 7.5.4)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from fsctl.openflow import const as c

EXPERIMENTER_ERROR = 0xFFFF


class _Type(NamedTuple):
    """An error type: the prefix of its codes, and the codes in order from 0."""

    name: str
    prefix: str
    codes: str


_TYPES = {
    0: _Type("OFPET_HELLO_FAILED", "OFPHFC", "INCOMPATIBLE EPERM"),
    1: _Type("OFPET_BAD_REQUEST", "OFPBRC",
             "BAD_VERSION BAD_TYPE BAD_MULTIPART BAD_EXPERIMENTER BAD_EXP_TYPE EPERM BAD_LEN BUFFER_EMPTY BUFFER_UNKNOWN "
             "BAD_TABLE_ID IS_SLAVE BAD_PORT BAD_PACKET MULTIPART_BUFFER_OVERFLOW MULTIPART_REQUEST_TIMEOUT "
             "MULTIPART_REPLY_TIMEOUT"),
    2: _Type("OFPET_BAD_ACTION", "OFPBAC",
             "BAD_TYPE BAD_LEN BAD_EXPERIMENTER BAD_EXP_TYPE BAD_OUT_PORT BAD_ARGUMENT EPERM TOO_MANY BAD_QUEUE "
             "BAD_OUT_GROUP MATCH_INCONSISTENT UNSUPPORTED_ORDER BAD_TAG BAD_SET_TYPE BAD_SET_LEN BAD_SET_ARGUMENT"),
    3: _Type("OFPET_BAD_INSTRUCTION", "OFPBIC",
             "UNKNOWN_INST UNSUP_INST BAD_TABLE_ID UNSUP_METADATA UNSUP_METADATA_MASK BAD_EXPERIMENTER BAD_EXP_TYPE "
             "BAD_LEN EPERM DUP_INST"),
    4: _Type("OFPET_BAD_MATCH", "OFPBMC",
             "BAD_TYPE BAD_LEN BAD_TAG BAD_DL_ADDR_MASK BAD_NW_ADDR_MASK BAD_WILDCARDS BAD_FIELD BAD_VALUE BAD_MASK "
             "BAD_PREREQ DUP_FIELD EPERM"),
    5: _Type("OFPET_FLOW_MOD_FAILED", "OFPFMFC",
             "UNKNOWN TABLE_FULL BAD_TABLE_ID OVERLAP EPERM BAD_TIMEOUT BAD_COMMAND BAD_FLAGS CANT_SYNC BAD_PRIORITY"),
    17: _Type("OFPET_BUNDLE_FAILED", "OFPBFC",
              "UNKNOWN EPERM BAD_ID BUNDLE_EXIST BUNDLE_CLOSED OUT_OF_BUNDLES BAD_TYPE BAD_FLAGS MSG_BAD_LEN MSG_BAD_XID "
              "MSG_UNSUP MSG_CONFLICT MSG_TOO_MANY MSG_FAILED TIMEOUT BUNDLE_IN_PROGRESS"),
}  # fmt: skip

TABLE_FULL = (5, 1)
BUNDLE_MSG_FAILED = (17, 13)


class OpenFlowError(NamedTuple):
    """An OFPT_ERROR: `xid` is that of the message it is about."""

    xid: int
    type: int
    code: int
    data: bytes = b""

    @property
    def name(self) -> str:
        return error_name(self.type, self.code)

    @property
    def kind(self) -> tuple[int, int]:
        return self.type, self.code


def error_name(type: int, code: int) -> str:
    """`OFPFMFC_TABLE_FULL`; numbers where the specification has no name."""
    known = _TYPES.get(type)
    if type == EXPERIMENTER_ERROR:
        return f"experimenter error {code}"
    if known is None:
        return f"error type {type} code {code}"
    codes = known.codes.split()
    return f"{known.prefix}_{codes[code]}" if code < len(codes) else f"{known.name} code {code}"


def decode_error(raw: bytes) -> OpenFlowError:
    """From a whole OFPT_ERROR message. Raises ValueError if it is shorter than one."""
    if len(raw) < 12 or raw[1] != c.ERROR:
        raise ValueError(f"not an OFPT_ERROR: {raw.hex()}")
    xid, type, code = struct.unpack_from("!IHH", raw, 4)
    return OpenFlowError(xid, type, code, bytes(raw[12:]))
