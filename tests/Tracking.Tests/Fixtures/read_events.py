"""Reads TensorBoard event files with nothing but the standard library, by the published field numbers
(tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, framework/summary.proto), as a reader written
by others would: bit by bit, stopping at the first record that is not whole.

Prints a JSON object a line: {"file", "wall", "step", and one of "version", "status", "values": {tag: number}};
for a torn end {"file", "torn": true}. `read_events.py crc HEX` prints the CRC-32C of bytes.
"""
import json
import os
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            yield None
            return
        length, check = struct.unpack_from("<QI", data, at)
        if check != masked(data[at:at + 8]) or at + 16 + length > len(data):
            yield None
            return
        body = data[at + 12:at + 12 + length]
        if struct.unpack_from("<I", data, at + 12 + length)[0] != masked(body):
            yield None
            return
        yield body
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif kind == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
            assert len(value) == length
        elif kind == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            raise ValueError(f"wire type {kind}")
        yield number, value


def event(body):
    told = {"step": 0}
    for number, value in fields(body):
        if number == 1:
            told["wall"] = value
        elif number == 2:
            told["step"] = value - (1 << 64) if value >> 63 else value
        elif number == 3:
            told["version"] = value.decode()
        elif number == 5:
            told["values"] = {}
            for inner, one in fields(value):
                assert inner == 1
                pair = dict(fields(one))
                assert set(pair) == {1, 2}
                told["values"][pair[1].decode()] = pair[2]
        elif number == 7:
            told["status"] = dict(fields(value))[1]
        else:
            raise ValueError(f"field {number}")
    return told


if sys.argv[1] == "crc":
    print(crc32c(bytes.fromhex(sys.argv[2])))
else:
    for name in sorted(os.listdir(sys.argv[1])):
        for body in records(os.path.join(sys.argv[1], name)):
            print(json.dumps({"file": name, **({"torn": True} if body is None else event(body))}))
