"""OpenFlow 1.4 with Nicira's extensions, pure: rules to bytes and back, and to ovs-ofctl text."""

from fsctl.openflow import const, requests
from fsctl.openflow.decode import FlowDecoder, FlowDump
from fsctl.openflow.encode import Encoder, bundle_add, bundle_control, flow_mod, message
from fsctl.openflow.errors import OpenFlowError, decode_error, error_name
from fsctl.openflow.monitor import FlowUpdate, decode_flow_updates, flow_monitor
from fsctl.openflow.ports import decode_ports
from fsctl.openflow.text import actions_text, key_text, match_text, ovs_ofctl_text

__all__ = [
    "Encoder",
    "FlowDecoder",
    "FlowDump",
    "FlowUpdate",
    "OpenFlowError",
    "actions_text",
    "bundle_add",
    "bundle_control",
    "const",
    "decode_error",
    "decode_flow_updates",
    "decode_ports",
    "error_name",
    "flow_mod",
    "flow_monitor",
    "key_text",
    "match_text",
    "message",
    "ovs_ofctl_text",
    "requests",
]
