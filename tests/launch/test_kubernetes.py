"""The JobSet is valid, its processes fit the slice, and a lost node restarts all of them."""

import copy
import math
import pathlib

import pytest
import yaml
from jsonschema import Draft202012Validator

FILE = pathlib.Path(__file__).parents[2] / "launch/kubernetes.yaml"


def exactly(required=(), **properties):
    """Return the schema of an object with these fields and no others."""
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def many(items, least=1):
    return {"type": "array", "items": items, "minItems": least}


TEXT, NUMBER, TEXTS = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "object"}
TEXTS |= {"additionalProperties": {"type": "string"}}
# The fields that the file uses, from the API references of JobSet (jobset.x-k8s.io/v1alpha2), Job (batch/v1) and
# Pod (v1).
POD = exactly(
    ("containers",),
    restartPolicy={"enum": ["Never"]},  # required by podFailurePolicy
    terminationGracePeriodSeconds=NUMBER,
    serviceAccountName=TEXT,
    nodeSelector=TEXTS,
    containers=many(
        exactly(
            ("name", "image"),
            name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            image=TEXT,
            command=many(TEXT),
            args=many(TEXT),
            ports=many(exactly(("containerPort",), containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
            resources=exactly(requests={"type": "object"}, limits={"type": "object"}),
            volumeMounts=many(exactly(("name", "mountPath"), name=TEXT, mountPath=TEXT)),
        )
    ),
    volumes=many(exactly(("name",), name=TEXT, emptyDir=exactly(medium={"enum": ["", "Memory"]}))),
)
JOB = exactly(
    ("template",),
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    parallelism=NUMBER,
    completions=NUMBER,
    backoffLimit=NUMBER,
    podFailurePolicy=exactly(
        ("rules",),
        rules=many(
            exactly(
                ("action",),
                action={"enum": ["FailJob", "FailIndex", "Ignore", "Count"]},
                onPodConditions=many(exactly(("type",), type=TEXT, status={"enum": ["True", "False", "Unknown"]})),
            )
        ),
    ),
    template=exactly(("spec",), spec=POD),
)
RESTARTS = ["RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob", "RestartJobAndIgnoreMaxRestarts"]
JOB_SET = exactly(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=exactly(("name",), name=TEXT, annotations=TEXTS, labels=TEXTS),
    spec=exactly(
        ("replicatedJobs",),
        ttlSecondsAfterFinished=NUMBER,
        failurePolicy=exactly(
            maxRestarts=NUMBER,
            rules=many(
                exactly(
                    ("name", "action"),
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action={"enum": ["FailJobSet", *RESTARTS]},
                    onJobFailureReasons=many(TEXT),
                )
            ),
        ),
        replicatedJobs=many(
            exactly(("name", "template"), name=TEXT, replicas=NUMBER, template=exactly(("spec",), spec=JOB))
        ),
    ),
)


@pytest.fixture
def job_set():
    [document] = yaml.safe_load_all(FILE.read_text())
    return document


def pod_of(job_set):
    return job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_schema(job_set):
    Draft202012Validator.check_schema(JOB_SET)
    assert not [error.message for error in Draft202012Validator(JOB_SET).iter_errors(job_set)]


def test_the_schema_detects_misspelt_fields(job_set):
    for path in (["spec", "failurePolicy"], ["spec", "replicatedJobs", 0, "template", "spec"], ["metadata"]):
        changed = copy.deepcopy(job_set)
        place = changed
        for key in path:
            place = place[key]
        place["maxRestart"] = 1
        assert list(Draft202012Validator(JOB_SET).iter_errors(changed)), path


def test_processes_and_chips_fit_the_slice(job_set):
    job, pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"], pod_of(job_set)
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    assert job["parallelism"] * chips == math.prod(int(side) for side in topology.split("x"))
    assert pod["containers"][0]["resources"]["requests"] == pod["containers"][0]["resources"]["limits"]


def test_a_lost_node_restarts_all_processes(job_set):
    """No pod is replaced alone; preempted nodes do not count as restarts; SIGTERM reaches the trainer."""
    job, pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"], pod_of(job_set)
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}
    ]
    [rule] = job_set["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod["containers"][0]["command"][:3] == ["python", "-m", "mpt_jax.train"]
