"""The published schema of the gate's results, and whether it describes every key of one."""

import json
import pathlib

from jsonschema import Draft202012Validator

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "docs/gate.schema.json").read_text(encoding="utf-8"))


def closed(schema, is_part=False):
    """Forbid, in a schema, keys that it does not describe; a part of `allOf` describes only some of them."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    done = {
        key: [closed(each, True) for each in value] if key == "allOf" else closed(value)
        for key, value in schema.items()
    }
    if "$defs" in done:
        done["$defs"] |= {name: closed(schema["$defs"][name], True) for name in ("comparison", "record")}
    if "allOf" in done:
        done["unevaluatedProperties"] = False
    elif isinstance(done.get("properties"), dict) and "required" in done and not is_part:
        done["additionalProperties"] = False
    return done


def require_described(result):
    """Require that the published schema is valid for a result, and that it describes every key."""
    name = "error" if "error" in result else result.get("kind", "result").replace("-", "_")
    for schema in (SCHEMA, closed(SCHEMA)):
        found = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        kind = {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
        assert not [f"{each.json_path}: {each.message}" for each in found.evolve(schema=kind).iter_errors(result)]
        found.validate(result)
