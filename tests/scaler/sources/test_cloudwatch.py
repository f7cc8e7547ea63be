"""Durations of CloudWatch; botocore checks every call against Amazon's model of it."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import UTC

import pytest
from botocore.stub import ANY
from botocore.stub import Stubber

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.sources.cloudwatch import CloudWatchSource

HOURS = [datetime(2026, 11, 25, hour, tzinfo=UTC) for hour in (3, 2, 1)]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., tuple[t.Any, Stubber]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")

    def make(**options: t.Any) -> tuple[CloudWatchSource, Stubber]:
        source = CloudWatchSource(region="eu-central-1", **options)
        stubber = Stubber(source._aws.client)
        stubber.activate()
        return source, stubber

    return make


def expected(**given: t.Any) -> dict[str, t.Any]:
    return {
        "StartTime": ANY,
        "EndTime": ANY,
        "ScanBy": "TimestampDescending",
        "MetricDataQueries": ANY,
        **given,
    }


def result(
    id: str, *values: float, status: str = "Complete", **given: t.Any
) -> dict[str, t.Any]:
    return {
        "Id": id,
        "Label": id,
        "Timestamps": HOURS[: len(values)],
        "Values": list(values),
        "StatusCode": status,
        **given,
    }


def page(*results: dict[str, t.Any], next: str | None = None) -> dict[str, t.Any]:
    found: dict[str, t.Any] = {"MetricDataResults": list(results)}
    return found | ({"NextToken": next} if next else {})


def test_hours_are_weighed_by_their_samples(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, stubber = make(unit="ms")
    stubber.add_response(
        "get_metric_data",
        page(
            result("mean0", 10_000.0, 100.0),
            result("samples0", 1.0, 99.0),
            result("p950", 12_000.0, 200.0),
        ),
        expected(),
    )
    found = source.read(["resize"])["resize"]
    assert found.mean == pytest.approx(0.199)
    assert found.samples == 100
    assert found.p95 == pytest.approx((12_000 + 99 * 200) / 100 / 1000)


def test_a_function_without_data_is_absent(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, stubber = make(names={"send-mail": "Mailer"})
    # Names are asked in their order: Mailer, resize.
    stubber.add_response(
        "get_metric_data",
        page(
            *(result(f"{kind}1") for kind in ("mean", "samples", "p95")),
            result("mean0", 3.0),
            result("samples0", 7.0),
        ),
        expected(),
    )
    found = source.read(["resize", "send-mail"])
    assert {key: (time.mean, time.samples) for key, time in found.items()} == {
        "send-mail": (3.0, 7.0)
    }


def test_each_function_is_asked_with_all_dimensions(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, stubber = make(
        namespace="Shop", metric="Took", label="Job", dimensions={"Stage": "prod"}
    )
    metric = {
        "Namespace": "Shop",
        "MetricName": "Took",
        "Dimensions": [
            {"Name": "Stage", "Value": "prod"},
            {"Name": "Job", "Value": "resize"},
        ],
    }
    queries = [
        {
            "Id": id,
            "MetricStat": {"Metric": metric, "Period": 3600, "Stat": statistic},
            "ReturnData": True,
        }
        for id, statistic in (
            ("mean0", "Average"),
            ("samples0", "SampleCount"),
            ("p950", "p95"),
        )
    ]
    stubber.add_response("get_metric_data", page(), expected(MetricDataQueries=queries))
    assert source.read(["resize"]) == {}
    assert source.describe() == "cloudwatch:Shop/Took"
    stubber.assert_no_pending_responses()


def test_what_is_on_several_pages_is_put_together(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, stubber = make()
    first = page(result("mean0", 2.0, status="PartialData"), next="page-2")
    second = page(result("samples0", 10.0), next="page-3")
    third = page(result("p950", 5.0))
    stubber.add_response("get_metric_data", first, expected())
    for token, answer in (("page-2", second), ("page-3", third)):
        stubber.add_response("get_metric_data", answer, expected(NextToken=token))
    found = source.read(["resize"])["resize"]
    assert (found.mean, found.samples, found.p95) == (2.0, 10.0, 5.0)


def test_a_call_has_no_more_than_five_hundred_queries(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, stubber = make()
    counts: list[int] = []
    source._aws.client.meta.events.register(
        "before-parameter-build.cloudwatch.GetMetricData",
        lambda params, **_: counts.append(len(params["MetricDataQueries"])),
    )
    for _ in range(2):
        stubber.add_response("get_metric_data", page(), expected())
    source.read([f"function-{number}" for number in range(200)])
    assert counts == [498, 102]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("AccessDenied", "platform.auth"),
        ("Throttling", "platform.rate_limited"),
        ("InternalServiceFault", "platform.unavailable"),
    ],
)
def test_a_refusal_says_which_kind_it_is(
    make: t.Callable[..., tuple[t.Any, Stubber]], error: str, code: str
) -> None:
    source, stubber = make()
    status = 500 if code.endswith("unavailable") else 400
    stubber.add_client_error("get_metric_data", error, "No.", http_status_code=status)
    with pytest.raises(PlatformError, match="refuses get_metric_data") as caught:
        source.read(["resize"])
    assert caught.value.code == code


def test_a_query_that_is_forbidden_is_no_missing_data(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, stubber = make()
    message = [{"Code": "Forbidden", "Value": "Not yours."}]
    answer = page(result("mean0", status="Forbidden", Messages=message))
    stubber.add_response("get_metric_data", answer, expected())
    with pytest.raises(PlatformError, match="Not yours") as caught:
        source.read(["resize"])
    assert caught.value.code == "platform.auth"


def test_nothing_is_asked_about_no_function(
    make: t.Callable[..., tuple[t.Any, Stubber]],
) -> None:
    source, _ = make()
    assert source.read([]) == {}


def test_a_window_is_an_hour_at_least() -> None:
    with pytest.raises(ConfigurationError, match="shorter than an hour"):
        CloudWatchSource(window="10m")
