// Command schedule answers what Kubernetes makes of schedules. Each line of the input is a JSON object with schedule,
// zone and times (Unix seconds); each line of the output has error, or the next run after each time (0: none). The
// argument is a CustomResourceDefinition (JSON) with spec.schedule and spec.timezone: schema is what the API server
// answers to a resource of that kind. With --check, nothing but the definition is looked at.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
	batch "k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/batch/validation"
	core "k8s.io/kubernetes/pkg/apis/core/validation"
)

type question struct {
	Schedule string  `json:"schedule"`
	Zone     string  `json:"zone"`
	Times    []int64 `json:"times"`
}

type answer struct {
	Error  string  `json:"error,omitempty"`
	Schema string  `json:"schema,omitempty"`
	Next   []int64 `json:"next,omitempty"`
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: schedule [--check] DEFINITION")
		os.Exit(2)
	}
	kind, err := load(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if kind == nil {
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		a := look(q)
		a.Schema = kind.refuses(q.Schedule, q.Zone)
		line, err := json.Marshal(a)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		out.Write(append(line, '\n'))
		out.Flush()
	}
}

func look(q question) answer {
	job := batch.CronJob{Spec: batch.CronJobSpec{Schedule: q.Schedule}}
	if q.Zone != "" {
		job.Spec.TimeZone = &q.Zone
	}
	// The rest of the object is invalid, and of no interest.
	for _, err := range validation.ValidateCronJobCreate(&job, core.PodValidationOptions{}) {
		if err.Field == "spec.schedule" || err.Field == "spec.timeZone" {
			return answer{Error: err.Error()}
		}
	}
	// As the CronJob controller does (pkg/controller/cronjob, formatSchedule and syncCronJob).
	zone := q.Zone
	if zone == "" {
		zone = "UTC"
	}
	schedule, err := cron.ParseStandard(fmt.Sprintf("TZ=%s %s", zone, q.Schedule))
	if err != nil || strings.TrimSpace(q.Schedule) == "" {
		return answer{Error: fmt.Sprint(err)}
	}
	a := answer{Next: []int64{}}
	for _, at := range q.Times {
		next := schedule.Next(time.Unix(at, 0).UTC())
		if next.IsZero() {
			a.Next = append(a.Next, 0)
			continue
		}
		a.Next = append(a.Next, next.Unix())
	}
	return a
}
