"""ARM expressions that are known before a deployment."""

import pytest

from infra.azure.provisioning.arm_expressions import Scope, Unresolved, parse

SCOPE = Scope(
    {"name": "test", "sku": {"tier": "Free"}, "list": ["a", "b"], "on": True, "none": ""},
    {"joined": "[format('{0}-{1}', parameters('name'), 'x')]", "later": "[subscription().tenantId]"},
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("[[kept]", "[kept]"),
        ("[parameters('name')]", "test"),
        ("[parameters('sku').tier]", "Free"),
        ("[parameters('list')[1]]", "b"),
        ("[variables('joined')]", "test-x"),
        ("[if(and(parameters('on'), not(equals('A', 'b'))), 'yes', subscription().id)]", "yes"),
        ("[empty(parameters('none'))]", True),
        ("[greater(length(parameters('list')), 2)]", False),
        ("[createObject('it''s', -1)]", {"it's": -1}),
        ("[concat(parameters('list'), createArray('c'), createArray())]", ["a", "b", "c"]),
        ("[concat('a', parameters('name'))]", "atest"),
        ("[take(format('st{0}', uniqueString(resourceGroup().id)), 24)]", "st*"),
        ("[resourceId('A.B/c/d', 'one', 'two')]", "A.B/c/one/d/two"),
        ("[resourceId(subscription().id, 'group', 'A.B/c', 'one')]", "A.B/c/one"),
        ("[if(empty(''), null(), 1)]", None),
        ({"copy": [{"name": "all", "count": 2, "input": "[copyIndex('all', 1)]"}], "k": 0}, {"all": [1, 2], "k": 0}),
        ([{"[parameters('name')]": 1}], [{"test": 1}]),
    ],
)
def test_a_known_expression_is_its_value(value, expected):
    assert SCOPE.evaluate(value) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("[reference('x', '2023').id]", "[reference('x', '2023')['id']]"),
        ("[variables('later')]", "[subscription()['tenantId']]"),
        ("[if(reference('x').on, 1, 2)]", "[if(reference('x')['on'], 1, 2)]"),
        ("[format('{0}', reference('x').id)]", "[format('{0}', reference('x')['id'])]"),
        ("[cidrSubnet('10.0.0.0/8', 24, 1)]", "[cidrsubnet('10.0.0.0/8', 24, 1)]"),
    ],
)
def test_what_only_azure_knows_stays_an_expression(value, text):
    found = SCOPE.evaluate(value)
    assert isinstance(found, Unresolved)
    assert str(found) == text


@pytest.mark.parametrize("text", ["f(", "f('a' #", "f() g()", ""])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="ARM expression"):
        parse(text)
