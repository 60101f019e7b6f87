"""The Redis commands that the buffer uses, as rules of an access control list."""

from __future__ import annotations

_COMMANDS = (
    *("ping", "info", "time", "exists", "bgrewriteaof"),
    *("multi", "exec", "eval", "evalsha", "script|load"),
    *("xadd", "xdel", "xsetid", "xrange", "xinfo"),
    *("xgroup", "xreadgroup", "xack", "xpending", "xclaim"),
    *("hdel", "hget", "hmget", "hset", "hincrby"),
    *("zadd", "zrem", "zcard", "zrange", "zrangebylex", "zlexcount"),
)

# Commands in scripts need them too.
ACL_RULES = tuple(f"+{command}" for command in _COMMANDS)
