package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// definition is the schema of spec.schedule and spec.timezone of a kind.
type definition struct {
	structural *schema.Structural
	validator  *cel.Validator
}

// load reads a definition (JSON), refuses what the API server would refuse of it (the cost of its rules included), and
// keeps what it says of the two fields.
func load(path string) (*definition, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var outer v1.CustomResourceDefinition
	if err := json.Unmarshal(text, &outer); err != nil {
		return nil, err
	}
	v1.SetDefaults_CustomResourceDefinition(&outer)
	v1.SetDefaults_CustomResourceDefinitionSpec(&outer.Spec)
	outer.Status.StoredVersions = []string{outer.Spec.Versions[0].Name}
	var inner apiextensions.CustomResourceDefinition
	if err := v1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&outer, &inner, nil); err != nil {
		return nil, err
	}
	if errs := validation.ValidateCustomResourceDefinition(context.Background(), &inner); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if len(os.Args) == 3 && os.Args[1] == "--check" {
		return nil, nil
	}
	validationSchema := inner.Spec.Validation
	if validationSchema == nil {
		validationSchema = inner.Spec.Versions[0].Schema
	}
	whole, err := schema.NewStructural(validationSchema.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	spec := whole.Properties["spec"]
	part := &schema.Structural{Generic: schema.Generic{Type: "object"}, Properties: map[string]schema.Structural{}}
	for _, name := range []string{"schedule", "timezone"} {
		property, there := spec.Properties[name]
		if !there {
			return nil, fmt.Errorf("%s has no spec.%s", path, name)
		}
		part.Properties[name] = property
	}
	return &definition{part, cel.NewValidator(part, false, celconfig.PerCallLimit)}, nil
}

// refuses is what the API server answers to a resource with this schedule; empty if it takes it.
func (d *definition) refuses(schedule, zone string) string {
	object := map[string]interface{}{"schedule": schedule, "timezone": zone}
	errs, _ := d.validator.Validate(context.Background(), field.NewPath("spec"), d.structural, object, nil, celconfig.RuntimeCELCostBudget)
	texts := []string{}
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}
